//! Program texts that several tests compile.

use std::fmt::Write as _;

/// A small C program.
pub const SMALL: &str = "int f(int x) { return x + 1; }\n";

/// Functions in [`slow`]: enough that `gcc -O3` is at work for a second or more on any machine, so that a test
/// can do something meanwhile; few enough that it ends soon.
const SLOW_FUNCTIONS: usize = 200;

/// A C program that `gcc -O3` takes seconds for.
pub fn slow() -> String {
    let mut text = String::new();
    for n in 0..SLOW_FUNCTIONS {
        let _ = writeln!(
            text,
            "double f{n}(double *a, int n) {{ double s = 0; for (int i = 0; i < n; i++) for (int j = 0; j < i; j++) \
             s += a[i] * a[j] / (a[i + j] + {n}); return s; }}"
        );
    }
    text
}
