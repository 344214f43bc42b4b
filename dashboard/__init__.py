"""The Streamlit application over the store: reads only."""
