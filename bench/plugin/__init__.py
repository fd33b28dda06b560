"""The pytest plugin: options, fixtures, selection and output. All that knows pytest is here."""
