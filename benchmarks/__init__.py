"""What training steps and kernels cost, beside the hardware's limit and beside PyTorch.

    python -m benchmarks steps [NAME ...]       whole training steps; one file each in benchmarks/steps/
    python -m benchmarks kernels [STEM ...]     single kernels; one file each beside this one, named as in kernels/
    python -m benchmarks ablation              what a VQ-VAE's codebook needs, quantiser by quantiser
    python -m benchmarks scaling [SWEEP ...]   a step's time and memory against batch, image, units and sequence
    python -m benchmarks gpu                   CUDA kernels on a GPU: tests, kernels, steps, a picture of the roofline

--torch times PyTorch beside them: on a CPU; with --device cuda on the GPU, with TF32 off and on, and steps also as CUDA graphs.

Adding one is writing one file: what it holds is described in `harness/step.py` and `harness/case.py`.
"""
