"""dicom-node: AI on what the PACS sends, results back to the PACS. Research use only."""

__version__ = "0.1.0"
