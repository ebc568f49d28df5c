"""fer_lab: the package under the research workbook for facial expression recognition."""

__version__ = "0.1.0"
