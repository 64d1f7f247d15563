package io.mq9;

/**
 * What a consumer has done so far.
 *
 * @param delivered messages handed to the handler or the loop
 * @param acknowledged messages confirmed
 * @param failed messages whose handler failed
 * @param givenBack messages given back
 * @param failedAcks ACKs that failed; those messages come again
 * @param failedFetches FETCHes that failed; each was followed by a pause
 */
public record ConsumerStats(
    long delivered,
    long acknowledged,
    long failed,
    long givenBack,
    long failedAcks,
    long failedFetches) {}
