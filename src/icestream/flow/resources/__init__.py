"""Sharing one machine: who may hold how much of its cores, memory and GPUs."""
