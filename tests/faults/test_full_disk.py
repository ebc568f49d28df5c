"""Being written; see NOTE_two_faults.md in the temporary folder."""
