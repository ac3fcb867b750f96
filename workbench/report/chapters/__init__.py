"""The chapters about the whole store, after those about each subject: one a file."""
