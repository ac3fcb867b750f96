"""What is told of records, for reports and pages alike: typed tables, sentences, verdicts."""
