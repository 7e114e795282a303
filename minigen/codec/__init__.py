"""Images to small files and back: VQ-VAE codes, entropy-coded under their prior.

    image -> tiles -> codes -> (range coder, with the prior's probabilities) -> bytes          and all the way back

An entropy decoder has to repeat the encoder's probabilities to the last bit, on whatever machine it runs: one rounding that
falls otherwise and everything after it is noise. So the prior and the decoder network run in numbers with which no order of
summation rounds (`fixed.py`), and probabilities are integers.
"""

from minigen.codec.codec import Codec, compress, decompress

__all__ = ["Codec", "compress", "decompress"]
