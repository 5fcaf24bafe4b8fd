"""Tables larger than memory: the same estimates from sums that DuckDB takes over Parquet files."""
