"""The book: ten notebooks, run headless by one command, and what a notebook itself calls.

This face is for notebooks; `fer_lab.book.run` runs them. Importing it loads neither torch nor papermill.
"""

from fer_lab.book.notebook import check_answer, frame_player, headline, hide_answer, run_folder
