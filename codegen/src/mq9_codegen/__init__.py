"""The generator of mq9: one YAML definition of the protocol in, SDKs, models, documents and tests out."""
