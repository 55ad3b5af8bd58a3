"""The reports, one file each: `HELP`, `collect`, `is_fine` and `page` (see `fieldlab.cli.report.Report`)."""
