//! HTTP metrics with the names and labels of Ory Talos, so that its dashboards and rules go on
//! (`metrics.compat: ory`).

use std::borrow::Cow;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of durations, in seconds: the defaults of Prometheus' Go client.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of sizes, in bytes.
const BYTES: [f64; 6] = [100.0, 1e3, 1e4, 1e5, 1e6, 1e7];

type RouteLabels = [(&'static str, Cow<'static, str>); 3];
type StatusLabels = [(&'static str, Cow<'static, str>); 2];
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Metrics of requests to the admin and public planes.
pub struct OryMetrics {
    requests: Family<RouteLabels, Counter>,
    durations: Histograms<RouteLabels>,
    request_sizes: Histograms<StatusLabels>,
    response_sizes: Histograms<StatusLabels>,
    in_flight: Gauge,
}

/// A finished request.
pub struct Exchange {
    /// Method in upper case.
    pub method: &'static str,
    /// Template of the route.
    pub route: Cow<'static, str>,
    /// Status of the response.
    pub status: u16,
    /// Duration.
    pub took: Duration,
    /// Size of the request's body, as announced.
    pub request_bytes: u64,
    /// Size of the response's body.
    pub response_bytes: u64,
}

/// Counts a request as in flight until it is dropped.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for OryMetrics {
    fn default() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let bytes: fn() -> Histogram = || Histogram::new(BYTES);
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(seconds),
            request_sizes: Family::new_with_constructor(bytes),
            response_sizes: Family::new_with_constructor(bytes),
            in_flight: Gauge::default(),
        }
    }
}

impl OryMetrics {
    /// Counts a request that begins.
    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Records a request that has ended.
    pub fn record(&self, exchange: Exchange) {
        let method = Cow::from(exchange.method.to_ascii_lowercase());
        let code = Cow::from(exchange.status.to_string());
        let by_status: StatusLabels = [("method", method.clone()), ("code", code.clone())];
        let by_route: RouteLabels = [("method", method), ("code", code), ("endpoint", exchange.route)];
        self.requests.get_or_create(&by_route).inc();
        self.durations.get_or_create(&by_route).observe(exchange.took.as_secs_f64());
        self.request_sizes.get_or_create(&by_status).observe(exchange.request_bytes as f64);
        self.response_sizes.get_or_create(&by_status).observe(exchange.response_bytes as f64);
    }

    /// Adds the metrics to a registry without a prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "Total HTTP requests", self.requests.clone());
        registry.register("http_request_duration_seconds", "Request latency", self.durations.clone());
        registry.register("http_request_size_bytes", "Request payload size", self.request_sizes.clone());
        registry.register("http_response_size_bytes", "Response payload size", self.response_sizes.clone());
        registry.register("http_requests_in_flight", "Concurrent requests", self.in_flight.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn names_and_labels_are_the_documented_ones() {
        let metrics = OryMetrics::default();
        let in_flight = metrics.begin();
        metrics.record(Exchange {
            method: "POST",
            route: "/v2alpha1/admin/issuedApiKeys".into(),
            status: 201,
            took: Duration::from_millis(7),
            request_bytes: 50,
            response_bytes: 500,
        });
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let route = r#"method="post",code="201",endpoint="/v2alpha1/admin/issuedApiKeys""#;
        let status = r#"method="post",code="201""#;
        for line in [
            format!("http_requests_total{{{route}}} 1"),
            format!("http_request_duration_seconds_bucket{{le=\"0.005\",{route}}} 0"),
            format!("http_request_duration_seconds_bucket{{le=\"0.01\",{route}}} 1"),
            format!("http_request_size_bytes_sum{{{status}}} 50.0"),
            format!("http_response_size_bytes_sum{{{status}}} 500.0"),
            "http_requests_in_flight 1".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        drop(in_flight);
        assert_eq!(metrics.in_flight.get(), 0);
    }
}
