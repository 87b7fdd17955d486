"""Reads the pixels of slides: DICOM whole slide images, whichever way they are stored."""

from dicom_node.slide.reader import SlideReader, open_slide

__all__ = ["SlideReader", "open_slide"]
