"""The whole path shown and measured on one machine: `dicom-node demo` and `dicom-node bench`."""
