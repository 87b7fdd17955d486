"""Generated slides: cells in depth under a microscope, as DICOM whole slide images, with truth.

`spec` says how large a slide is and how it is stored, `crops`, `cytology` and `smear` have the cells,
`placement` lays them out, `scene` renders any tile of any level and focal plane from them, `write`
makes DICOM of it and `truth` says what lies where. Everything is a function of a seed.
"""
