//! The Python module `turnout_ingress`.

mod answered_group;
mod answering;
mod callers;
mod columns;
mod ids;
mod io_thread;
mod native_model;
mod observations;
mod rows;
mod settings;
mod store_keys;
mod trees;
mod turns;

use pyo3::prelude::*;

/// The native library of Turnout's gateway: its ingress server, and work on whole batches.
#[pymodule]
fn turnout_ingress(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<trees::Trees>()?;
    module.add_class::<native_model::NativeModel>()?;
    module.add_class::<native_model::SharedPage>()?;
    module.add_class::<store_keys::PyStoreKeys>()?;
    io_thread::add(module)?;
    observations::add(module)?;
    rows::add(module)?;
    ids::add(module)?;
    answered_group::add(module)?;
    turns::add(module)?;
    answering::add(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
