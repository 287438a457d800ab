//! Runs safe code that was compiled again, for processors with wider vectors.

/// A computation that is worth compiling twice or more. All functions return the same bits.
pub trait Vectorized: Sized {
    /// The result of the computation.
    type Output;

    /// `run_avx2` is also compiled for AVX-512, because that is faster. It need not be: the compiler then
    /// also reads from scattered places with vectors, which takes longer than one by one.
    const FOR_AVX512: bool = false;

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
    if V::FOR_AVX512
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("fma")
    {
        // SAFETY: the processor has all features, as was just detected.
        return unsafe { run_with_avx512(computation) };
    }
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

/// # Safety
///
/// The processor has to have AVX-512 F, BW, DQ and VL, and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
unsafe fn run_with_avx512<V: Vectorized>(computation: V) -> V::Output {
    computation.run_avx2()
}
