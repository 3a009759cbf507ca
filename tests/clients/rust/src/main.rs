//! A client in Rust: what docs/clients.md shows, run by tests/test_clients.py.

use std::time::Duration;

use pointsman::router_service_client::RouterServiceClient;
use pointsman::{Disposition, ReportRewardRequest, RouteRequest, Usage};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

mod pointsman {
    tonic::include_proto!("pointsman.v1");
}

const PATIENCE: Duration = Duration::from_secs(20);

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let target = format!("https://{}", std::env::var("POINTSMAN_TARGET")?);
    let authority = Certificate::from_pem(std::fs::read(std::env::var("POINTSMAN_CA")?)?);
    let tls = ClientTlsConfig::new().ca_certificate(authority);
    let channel = Endpoint::from_shared(target)?
        .tls_config(tls)?
        .connect()
        .await?;
    let key: MetadataValue<Ascii> =
        format!("Bearer {}", std::env::var("POINTSMAN_API_KEY")?).parse()?;
    let with_key = |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", key.clone());
        Ok(request)
    };
    let client = RouterServiceClient::with_interceptor(channel, with_key);

    let query = RouteRequest {
        prompt: "What is the capital of France?".into(),
        request_id: "order-4711".into(),
        ..Default::default()
    };
    let ask = async || {
        within(PATIENCE, query.clone(), async |asked| {
            client.clone().route(asked).await
        })
        .await
    };
    let decision = retried(ask).await?.into_inner();
    let again = retried(ask).await?.into_inner();

    // ... call decision.model, look at the answer, and report what is known:
    let report = ReportRewardRequest {
        decision_id: decision.decision_id.clone(),
        report_id: "order-4711-judge".into(),
        reward: Some(0.9),
        usage: Some(Usage {
            input_tokens: 8,
            output_tokens: 12,
            ..Default::default()
        }),
        ..Default::default()
    };
    let tell = async || {
        within(PATIENCE, report.clone(), async |told| {
            client.clone().report_reward(told).await
        })
        .await
    };
    let first = retried(tell).await?.into_inner();
    let second = retried(tell).await?.into_inner();

    let too_good = ReportRewardRequest {
        decision_id: decision.decision_id.clone(),
        reward: Some(1.5),
        ..Default::default()
    };
    let refusal = client
        .clone()
        .report_reward(too_good)
        .await
        .expect_err("it is refused");
    let info = refusal.get_details_error_info().expect("it has a reason");
    let bad = refusal.get_details_bad_request().expect("it has a field");

    let long = RouteRequest {
        prompt: "too late ".repeat(50_000),
        ..Default::default()
    };
    let hurry = Duration::from_micros(1);
    let late = within(hurry, long, async |asked| client.clone().route(asked).await)
        .await
        .expect_err("it is late");

    println!(
        "{}",
        serde_json::json!({
            "decision_id": decision.decision_id,
            "same_decision": again.decision_id == decision.decision_id,
            "model": decision.model,
            "fallbacks": decision.fallback_models,
            "dispositions": [name(first.disposition), name(second.disposition)],
            "refusal": {
                "code": format!("{:?}", refusal.code()),
                "reason": info.reason,
                "field": bad.field_violations[0].field,
            },
            "deadline": format!("{:?}", late.code()),
        })
    );
    Ok(())
}

/// Both calls can be sent again, since their ids make them count once.
async fn retried<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    let mut pause = Duration::from_millis(50);
    for _ in 1..5 {
        match call().await {
            Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(pause).await,
            answer => return answer,
        }
        pause *= 2;
    }
    call().await
}

/// Ends the call at its deadline, here and, since the stream is then reset, at the server. tonic's own timeouts end in
/// Cancelled, which says nothing of a deadline.
async fn within<M, T>(
    limit: Duration,
    message: M,
    call: impl AsyncFnOnce(M) -> Result<T, Status>,
) -> Result<T, Status> {
    let answer = tokio::time::timeout(limit, call(message)).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

fn name(disposition: i32) -> &'static str {
    Disposition::try_from(disposition)
        .unwrap_or_default()
        .as_str_name()
}
