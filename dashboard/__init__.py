"""The Streamlit application over the store: reads only.

`queries` turn the store into frames, `figures` turn frames into Plotly figures; both are pure. `views` only wire them
to widgets. The folder is the package ``dashboard`` in a checkout and ``autopeft._dashboard`` in an installed wheel,
which is why its modules import each other relatively.
"""
