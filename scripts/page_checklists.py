"""docs/checklists.md: what reporting guidelines ask for, and the field of report.json that answers it.

    python scripts/page_checklists.py
"""

from pathlib import Path

from covid_jax.report.checklists import markdown

PAGE = Path(__file__).parents[1] / 'docs' / 'checklists.md'

if __name__ == '__main__':
    PAGE.write_text(markdown())
