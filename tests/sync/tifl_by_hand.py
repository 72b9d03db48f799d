"""TiFL's adaptive policy in plain loops (Chai et al., HPDC 2020, Algorithm 2), to be read first."""


def adaptive(rounds, accuracy, draw, *, tiers, interval, credit):
    """The tier of every round.

    ``accuracy(r)``: A_t of the parameters that round r begins with. ``draw(r, chances)``: a tier
    with these chances, of those with credits. New chances count one round after the look.
    """
    chances = [1 / tiers] * tiers
    left = [credit] * tiers
    found = []
    for r in range(rounds):
        looked = r - 1
        if looked >= interval and looked % interval == 0:
            before, now, tier = accuracy(looked - interval), accuracy(looked), found[looked - 1]
            if now[tier] <= before[tier]:
                chances = change_probs(now, left)
        tier = draw(r, [chance if left[t] else 0.0 for t, chance in enumerate(chances)])
        left[tier] -= 1
        found.append(tier)
    return found


def change_probs(accuracy, left):
    """The worst tier gets most, the best one nothing."""
    tiers = sorted((t for t in range(len(left)) if left[t] > 0), key=lambda t: accuracy[t])
    n = len(tiers)
    chances = [0.0] * len(left)
    for i, tier in enumerate(tiers, 1):
        chances[tier] = (n - i) / (n * (n - 1) / 2) if n > 1 else 1.0
    return chances
