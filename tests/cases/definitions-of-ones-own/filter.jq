include "team"; team_job(.task)
