"""What callers ask the phone desk of ``pipelines/demo/insurance_context.txt``, call by call.

Each is said in one breath: where a bot takes a caller's pause for the end of the turn, that is another measurement.
"""

from typing import Final

CALLS: Final = (
    (
        "When can I reach somebody at the phone desk?",
        "Is the emergency line open at night too?",
        "What is the deductible for water damage from a burst pipe?",
        "How soon will the plumber come to my house?",
        "How fast is the money paid after you approve the claim?",
    ),
    (
        "Is a laptop covered that was stolen from my locked flat?",
        "Until when do I have to report the theft to the police?",
        "What do I have to send you after I have been to the police?",
        "What is the deductible for theft?",
        "When do I get a first answer from you about my claim?",
    ),
    (
        "How much does the Home Plus policy cost each month?",
        "Is it cheaper if I pay for the whole year at once?",
        "Does my policy cover a flood from the river behind the house?",
        "How much would it cost to add flood cover to my policy?",
        "Is my bicycle insured if it was locked in front of the house?",
    ),
    (
        "What do I have to tell you before I move to a new flat?",
        "Are both homes insured while we are moving?",
        "For how many days are both homes covered?",
        "How much notice do I have to give if I want to cancel?",
        "Can I cancel the policy in the app or only in writing?",
    ),
)
