"""The unary methods that score nothing: DescribeModel, ReportOutcome, and metadata."""
