//! Generates the client from the protos. protox compiles them, so no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = std::env::var("PROTOS")?;
    println!("cargo:rerun-if-env-changed=PROTOS");
    println!("cargo:rerun-if-changed={protos}/pointsman/v1");
    let compiled = protox::compile(["pointsman/v1/router_service.proto"], [&protos])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(compiled)?;
    Ok(())
}
