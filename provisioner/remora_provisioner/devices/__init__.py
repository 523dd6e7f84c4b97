"""The GPUs of one machine: `cdi` and `nvml` find them, `choosing` says which one will do, `grants` knows who holds which."""
