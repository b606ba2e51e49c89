"""SummarizeLosses: batches of a data set stream in, mergeable summaries stream out."""
