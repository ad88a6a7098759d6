"""Diagnosis -> Outcome: plan, proof and journal are pure; apply and undo do the writing."""
