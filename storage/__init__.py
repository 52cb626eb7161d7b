"""What is kept: bytes in an S3-compatible store, jobs in Redis, weights wherever they can be had.

The only package that talks S3 and Redis (the queue's broker aside). It knows nothing of HTTP, audio or Whisper. The
object store is the truth and Redis the index: whatever a job needs to be run again lies beside its recording.
"""
