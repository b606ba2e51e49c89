"""SummarizeLosses: a data set streams out, summaries come back."""
