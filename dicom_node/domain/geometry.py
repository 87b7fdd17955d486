"""Words of space that series and slides share."""

Vector = tuple[float, float, float]
"""x, y, z: of the patient (LPS), or of the slide coordinate system; mm, or a direction without unit."""
