"""What training needs and how well it goes: memory, devices, sampler against trainer, answers in
loops."""
