//! The numbers of both widths that steps compute with.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::accel::trees::outputs::logistic;

/// A floating-point number.
pub trait Real:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The number 0.0.
    const ZERO: Self;
    /// The number 1.0.
    const ONE: Self;

    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `self` to the power of `exponent`.
    fn pow(self, exponent: Self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// e to the power of `self`.
    fn exp(self) -> Self;
    /// The largest integer that is not above.
    fn floor(self) -> Self;
    /// The smallest integer that is not below.
    fn ceil(self) -> Self;
    /// The nearest integer, of two the even one.
    fn round(self) -> Self;
    /// 1 / (1 + exp(-x))
    fn sigmoid(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;

    /// The higher one. NaN if one of them is NaN.
    #[inline(always)]
    fn higher(self, other: Self) -> Self {
        if self > other || is_nan(self) {
            self
        } else {
            other
        }
    }

    /// The lower one. NaN if one of them is NaN.
    #[inline(always)]
    fn lower(self, other: Self) -> Self {
        if self < other || is_nan(self) {
            self
        } else {
            other
        }
    }
}

/// Whether a number is NaN.
#[inline(always)]
#[allow(clippy::eq_op)]
pub fn is_nan<T: PartialEq>(value: T) -> bool {
    value != value
}

/// Functions of `std` that have the same name.
macro_rules! of_std {
    ($type:ty: $($name:ident),*) => {$(
        #[inline(always)]
        fn $name(self) -> Self {
            <$type>::$name(self)
        }
    )*};
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    of_std!(f32: abs, sqrt, ln, exp, floor, ceil);

    #[inline(always)]
    fn mul_add(self, factor: f32, term: f32) -> f32 {
        f32::mul_add(self, factor, term)
    }

    #[inline(always)]
    fn round(self) -> f32 {
        self.round_ties_even()
    }

    #[inline(always)]
    fn pow(self, exponent: f32) -> f32 {
        self.powf(exponent)
    }

    #[inline(always)]
    fn sigmoid(self) -> f32 {
        logistic(self)
    }

    /// By the approximation of ONNX Runtime's kernels (MlasComputeTanh).
    #[inline(always)]
    fn tanh(self) -> f32 {
        const ALPHA: [f64; 7] = [
            -2.76076847742355e-16,
            2.00018790482477e-13,
            -8.60467152213735e-11,
            5.12229709037114e-08,
            1.48572235717979e-05,
            6.37261928875436e-04,
            4.89352455891786e-03,
        ];
        const BETA: [f64; 4] = [
            1.19825839466702e-06,
            1.18534705686654e-04,
            2.26843463243900e-03,
            4.89352518554385e-03,
        ];
        let value = self.clamp(-9.0, 9.0);
        let square = value * value;
        let horner = |terms: &[f64]| {
            let first = terms[0] as f32;
            terms[1..].iter().fold(first, |sum, term| sum.mul_add(square, *term as f32))
        };
        horner(&ALPHA) * value / horner(&BETA)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    of_std!(f64: abs, sqrt, ln, exp, floor, ceil, tanh);

    #[inline(always)]
    fn mul_add(self, factor: f64, term: f64) -> f64 {
        f64::mul_add(self, factor, term)
    }

    #[inline(always)]
    fn round(self) -> f64 {
        self.round_ties_even()
    }

    #[inline(always)]
    fn pow(self, exponent: f64) -> f64 {
        self.powf(exponent)
    }

    #[inline(always)]
    fn sigmoid(self) -> f64 {
        // The exponential function of a positive number might be infinite.
        let part = (-self.abs()).exp();
        (if self < 0.0 { part } else { 1.0 }) / (1.0 + part)
    }
}
