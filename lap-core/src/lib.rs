//! Nouns, contracts, engine and memory backends of the LiteLLM Agent Platform.
