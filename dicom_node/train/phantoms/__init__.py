"""Generated pelvic MR studies: anatomy, physics, vendor habits and truth masks.

`cases` says which cases a cohort has, `generate` renders one to arrays, `write` makes DICOM
of it. Everything is a function of a seed. Nothing here is a person, and nothing learnt here
is a claim about people: the phantoms exist so that the whole path can be trained and tested.
"""
