"""``python -m workbench.serve``: streamlit's own command, which serves the dashboard.

An interrupt, by which people end it, is one line. Streamlit alone answers with a traceback while
it is imported, and with exit code 1 afterwards.
"""

from workbench.start import answer_interrupts


def main() -> None:
    """Run streamlit with the arguments of this process."""
    answer_interrupts()
    from streamlit.web.cli import main as streamlit

    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()
