"""The gateway: speaks the OpenAI API, and lets Pointsman choose the model. A client of the public contract."""
