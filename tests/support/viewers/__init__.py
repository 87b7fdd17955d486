"""Real viewers in a real browser: what a person would see of our objects, as text and pixels.

The parts know nothing of each other but what is named here, so that another viewer is a new
module beside `ohif.py` and nothing else:

- `package.published(...)`: an npm package's files, fetched once into a cache outside the repository.
- `site.Site(...)`: serves a folder, some pages made in memory, and an archive behind prefixes.
- `browser.chromium()`: a headless Chromium; `Tab` opens an address, collects what went wrong on the
  page, photographs it and evaluates JavaScript in it.
- `archive.archive(...)`: Orthanc with DICOMweb, filled by C-STORE.
- `placement`: does colour on a photograph lie where a mask in patient space says?

A page for another library (a slide viewer, say) is made in memory and served beside the library:

    dist = published(Package("dicom-microscopy-viewer", "0.48.24", "sha512-..."), "dist")
    with archive(folder) as pacs, chromium() as browser:
        pacs.store(paths)
        made = {"/index.html": page.encode(), "/static/js/dataLoader.worker.min.js": worker}
        with Site(dist, made=made, proxied=pacs.prefixes) as site, browser.tab(site.url) as tab:
            tab.open("/?study=1.2.3")
            tab.until("() => window.done")
            shown = tab.photograph("slide")
            assert tab.errors == []

`made` also takes the place of what an archive serves wrongly, such as metadata of annotations.
"""
