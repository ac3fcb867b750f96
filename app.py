"""The dashboard's entry, navigation only: ``streamlit run app.py [-- STORE.db]``."""

from pathlib import Path

import streamlit as st

from workbench import dashboard
from workbench.dashboard import scaling

# A named icon would be fetched from outside; a file of our own is not.
ICON = Path(dashboard.__file__).with_name("icon.svg")

st.set_page_config(page_title="Visual-token workbench", page_icon=ICON, layout="wide")
pages = [
    st.Page(scaling.render, title="Scaling", icon=":material/show_chart:", url_path="scaling"),
]
st.navigation(pages).run()
