"""The words both sides speak: .proto files, flat, with the code protoc makes of them."""
