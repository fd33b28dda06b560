"""The pytest plugin: options, fixtures, selection and output. Only this folder imports pytest."""
