"""The one writer of releases: what people order about versions, in force for all."""
