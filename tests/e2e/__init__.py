"""The whole journey with a real engine and a real model."""
