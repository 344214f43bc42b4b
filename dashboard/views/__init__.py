"""The pages: they only wire queries and figures to widgets."""
