"""The messages of predict.proto as protoc generates them. `make protos` writes them."""
