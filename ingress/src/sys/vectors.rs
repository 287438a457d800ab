//! Runs safe code that was compiled a second time, for processors with wider vectors.

/// A computation that is worth compiling twice. Both functions return the same bits.
pub trait Vectorized {
    /// The result of the computation.
    type Output;

    /// Run as compiled for every processor of this architecture.
    fn run_portable(self) -> Self::Output;

    /// Run as compiled for AVX2 and FMA. The function has to be `#[inline(always)]`, and so does
    /// everything hot that it calls: code is compiled for the vectors of the function that it is
    /// inlined into.
    fn run_avx2(self) -> Self::Output;
}

/// Run a computation with the widest vectors that this processor has.
#[inline]
pub fn run<V: Vectorized>(computation: V) -> V::Output {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both features, as was just detected.
        return unsafe { run_with_avx2(computation) };
    }
    computation.run_portable()
}

/// # Safety
///
/// The processor has to have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_with_avx2<V: Vectorized>(computation: V) -> V::Output {
    computation.run_avx2()
}
