//! The accelerator in a chain: the dynamic module that lets requests of known keys pass, upon which
//! the check behind it is skipped.

use super::http_filter::HttpFilter;
use super::node::Node;

/// Name of the module's library, without `lib` and `.so`.
const LIBRARY: &str = "talos_module";

/// Condition of the check behind the module.
pub(super) const CONDITION: &str = "\
filter_enabled_metadata:
  filter: envoy.filters.http.ext_authz
  path: [{ key: decision }]
  value: { string_match: { exact: allow } }
  invert: true";

/// Returns true for the accelerator.
pub(super) fn is_accelerator(filter: &HttpFilter<'_>) -> bool {
    filter.kind == Some("DynamicModuleFilter")
        && filter.config.get_path("dynamic_module_config.name").text() == Some(LIBRARY)
}

/// Returns true if a `filter_enabled_metadata` is [`CONDITION`]: the check is skipped for what the
/// accelerator let pass, and for nothing else.
pub(super) fn is_its_condition(wanted: &Node<'_>) -> bool {
    let path = wanted.items("path");
    let value = wanted.get_path("value.string_match");
    let is_exact = value.get("exact").text() == Some("allow") && !value.get("ignore_case").is_true();
    wanted.get("filter").text() == Some("envoy.filters.http.ext_authz")
        && matches!(&path[..], [only] if only.get("key").text() == Some("decision"))
        && is_exact
        && wanted.get("invert").is_true()
}
