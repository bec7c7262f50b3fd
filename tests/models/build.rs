//! The files of Narrows that are modelled take loom's atomics here, and nowhere else.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=loom");
}
